;; outcome: timed_out; tries: to call itself without end and without stack
(func $again (export "_start") (return_call $again))
