;; outcome: succeeded; tries: to write 2^32 - 1 buffers
(func (export "_start")
  (call $must_fail (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 16))))
