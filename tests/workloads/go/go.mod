module leakprobe/workloads

go 1.19
