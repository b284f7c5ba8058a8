;; outcome: timed_out; tries: to write to stderr a byte at a time without end
(data (i32.const 1024) "x\00")
(func (export "_start")
  (loop $again (drop (call $write (i32.const 2) (i32.const 1024) (i32.const 1))) (br $again)))
