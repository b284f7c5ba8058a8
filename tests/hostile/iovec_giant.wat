;; outcome: succeeded; tries: to write one buffer of 4 GiB
(func (export "_start")
  (i32.store (i32.const 0) (i32.const 0))
  (i32.store (i32.const 4) (i32.const -1))
  (call $must_fail (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))
