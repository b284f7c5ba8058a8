;; outcome: succeeded; tries: to close its three streams and go on writing
(data (i32.const 1024) "after\00")
(func (export "_start")
  (drop (call $fd_close (i32.const 0)))
  (drop (call $fd_close (i32.const 1)))
  (drop (call $fd_close (i32.const 2)))
  (call $must_fail (call $write (i32.const 1) (i32.const 1024) (i32.const 5)))
  (call $must_fail (call $write (i32.const 2) (i32.const 1024) (i32.const 5))))
