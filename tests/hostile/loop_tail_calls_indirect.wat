;; outcome: timed_out; tries: two functions that call each other in tail position through a table
(type $plain (func))
(table 2 2 funcref)
(elem (i32.const 0) func $ping $pong)
(func $ping (return_call_indirect (type $plain) (i32.const 1)))
(func $pong (return_call_indirect (type $plain) (i32.const 0)))
(func (export "_start") (call $ping))
