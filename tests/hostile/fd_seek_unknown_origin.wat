;; outcome: trapped; tries: to seek from an origin that there is not
(data (i32.const 1024) "x\00")
(func (export "_start")
  (call $must_work (call $open_to_write (global.get $scratch) (i32.const 1024)))
  (call $must_fail (call $fd_seek (global.get $fd) (i64.const 0) (i32.const 77) (i32.const 16))))
