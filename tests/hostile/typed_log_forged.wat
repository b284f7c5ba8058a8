;; outcome: succeeded; tries: to log terminal escapes, and lines that look like records
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
    (data (i32.const 2048) "\1b[31m\0d\0a2026-01-01 00:00:00,000 - x - ERROR - forged\0a{\"seq\":0,\"event\":\"run_finished\",\"status\":\"done\"}\0a\c2\9b\e2\80\ae\00")
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "run") (param i32 i32) (result i32)
      (call $log (i32.const 4) (i32.const 2048) (i32.const 140))
      (i32.const 96)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "log" (func $log))))))
  (func $run (param "args" string) (result (result (option string) (error string)))
    (canon lift (core func $guest "run") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $describe (result string) (canon lift (core func $guest "describe") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run))
  (export "describe" (func $describe)))
