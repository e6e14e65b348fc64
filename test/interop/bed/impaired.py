"""A link with a bad wire in it: a third namespace between `srv` and `cli`, in which the program `impair` carries frames
from one side to the other with delay, loss and a rate. Kernel and engine share it, as they share everything else."""

import os

from bed import netns, processes
from bed.service import program


class ImpairedLink(netns.Link):
    """As netns.Link. `start(...)` puts the wire in; before that nothing gets through."""

    def _create(self, queues, mtu):
        self._registry = self.srv._registry
        self.mid = netns.Namespace(self.srv.name[:-3] + "mid", "ts-mid0", 3, self._registry)
        for side in (self.srv, self.cli, self.mid):
            netns._ip("netns", "add", side.name)
        for number, side in enumerate((self.srv, self.cli)):
            far = f"ts-mid{number}"
            netns._ip("link", "add", side.interface, "netns", side.name, "type", "veth", "peer", "name", far, "netns",
                      self.mid.name)
            netns._ip("-n", self.mid.name, "link", "set", far, "mtu", str(mtu), "up")
            side.sysctl("net.ipv4.tcp_congestion_control", "cubic")
            side.sysctl("net.ipv6.conf.all.accept_dad", 0)
            self._configure(side, mtu)
            # Frames pass through a packet socket: none larger than the MTU, all with their checksum.
            side.check(["ethtool", "-K", side.interface, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
        self._wire = None

    def start(self, *options):
        """Begins (anew) with these options of `impair`."""
        self.stop()
        self._wire = self.mid.spawn([program("impair"), "ts-mid0", "ts-mid1", *map(str, options)], name="impair")
        self._wire.wait_ready(r"^ready")

    def stop(self):
        if self._wire is not None:
            self._wire.stop()
            self._wire = None

    def close(self):
        super().close()
        if os.path.exists(f"/run/netns/{self.mid.name}"):
            processes.capture_output(["ip", "netns", "del", self.mid.name])
