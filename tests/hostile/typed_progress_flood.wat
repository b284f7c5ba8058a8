;; outcome: timed_out; tries: to report progress without end
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
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (local $fraction f32)
      (loop $again
        (local.set $fraction (f32.add (local.get $fraction) (f32.const 0x1p-24)))
        (call $progress (local.get $fraction) (i32.const 65536) (i32.const 1024))
        (br $again))
      (unreachable)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "progress" (func $progress))))))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
