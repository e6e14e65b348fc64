"""The test bed of the interop scripts, the demo and the benchmarks; import it through `testbed`."""
