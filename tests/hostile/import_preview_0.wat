;; outcome: refused; tries: the interface before preview 1, where fuel and guards are missing
(module
  (import "wasi_unstable" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")))
