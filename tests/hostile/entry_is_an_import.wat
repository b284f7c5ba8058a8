;; outcome: refused; tries: a function of the host as its entry
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (memory (export "memory") 1)
  (export "_start" (func $yield)))
