;; outcome: succeeded; tries: to report a progress that is no number, endless, and below nothing
(component
  (import "mandelbox:task/host@0.1.0" (instance $host
    (export "progress" (func (param "fraction" f32) (param "message" string)))))
  (core module $memory (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $memory (instantiate $memory))
  (core func $progress (canon lower (func $host "progress") (memory (core memory $memory "memory"))))
  (core module $guest
    (import "host" "memory" (memory 2))
    (import "host" "progress" (func $progress (param f32 i32 i32)))
    (data (i32.const 16) "\00\04\00\00\38\00\00\00")
    (data (i32.const 1024) "{\"name\": \"t\", \"input_type\": \"Any\", \"output_type\": \"Any\"}")
    (data (i32.const 2048) "\1b[2K\0d\c2\9bA")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (call $progress (f32.const nan:0x200001) (i32.const 2048) (i32.const 9))
      (call $progress (f32.const inf) (i32.const 2048) (i32.const 9))
      (call $progress (f32.const -inf) (i32.const 2048) (i32.const 9))
      (call $progress (f32.const -1e38) (i32.const 0) (i32.const 0))
      (i32.const 96)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "progress" (func $progress))))))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
