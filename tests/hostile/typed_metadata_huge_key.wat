;; outcome: succeeded; tries: to ask for a metadata key of 32 MiB
(component
  (import "mandelbox:task/host@0.1.0" (instance $host
    (export "metadata" (func (param "key" string) (result (option string))))))
  (core module $memory (memory (export "memory") 520)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $memory (instantiate $memory))
  (core func $metadata (canon lower (func $host "metadata") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $guest
    (import "host" "memory" (memory 520))
    (import "host" "metadata" (func $metadata (param i32 i32 i32)))
    (data (i32.const 16) "\00\04\00\00\38\00\00\00")
    (data (i32.const 1024) "{\"name\": \"t\", \"input_type\": \"Any\", \"output_type\": \"Any\"}")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (call $metadata (i32.const 65536) (i32.const 33554432) (i32.const 128))
      (i32.const 96)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "metadata" (func $metadata))))))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
