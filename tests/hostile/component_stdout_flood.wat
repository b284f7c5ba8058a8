;; outcome: timed_out; tries: to write to stdout without end, a MiB at a time, as a component
(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $outer_error))
    (export "error" (type $own_error (eq $outer_error)))
    (type $failure (variant (case "last-operation-failed" (own $own_error)) (case "closed")))
    (export "stream-error" (type $stream_error (eq $failure)))
    (export "output-stream" (type $stream (sub resource)))
    (export "[method]output-stream.write"
      (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $stream_error)))))))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output (type $outer_output))
    (export "output-stream" (type $own_output (eq $outer_output)))
    (export "get-stdout" (func (result (own $own_output))))))
  (core module $memory (memory (export "memory") 32))
  (core instance $memory (instantiate $memory))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $write
    (canon lower (func $streams "[method]output-stream.write") (memory (core memory $memory "memory"))))
  (core module $guest
    (import "host" "get" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (func (export "run") (result i32) (local $stdout i32)
      (local.set $stdout (call $get))
      (loop $again
        (call $write (local.get $stdout) (i32.const 1024) (i32.const 1048576) (i32.const 16))
        (br $again))
      (unreachable)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "get" (func $get)) (export "write" (func $write))))))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $cli_run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli_run)))
