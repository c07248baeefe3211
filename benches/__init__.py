"""Benchmarks: ckad beside other libraries, the same programs, in one run.

`workloads` has the programs, written once over a namespace of NumPy names; `libraries` says how each library does
them; `worker` measures one (workload, library) in a process of its own; `compare` runs workers in turn and prints.
"""
