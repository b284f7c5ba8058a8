;; outcome: timed_out; tries: to log lines of 64 KiB without end
(component
  (import "mandelbox:task/host@0.1.0" (instance $host
    (type $levels (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $levels)))
    (export "log" (func (param "level" $level) (param "message" string)))))
  (core module $memory (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $memory (instantiate $memory))
  (core func $log (canon lower (func $host "log") (memory (core memory $memory "memory"))))
  (core module $guest
    (import "host" "memory" (memory 2))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (data (i32.const 16) "\00\04\00\00\38\00\00\00")
    (data (i32.const 1024) "{\"name\": \"t\", \"input_type\": \"Any\", \"output_type\": \"Any\"}")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (loop $again
        (call $log (i32.const 2) (i32.const 65536) (i32.const 65536))
        (br $again))
      (unreachable)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "log" (func $log))))))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
