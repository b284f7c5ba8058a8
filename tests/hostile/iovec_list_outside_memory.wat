;; outcome: trapped; tries: a list of buffers that lies outside its memory
(func (export "_start")
  (call $must_fail (call $fd_write (i32.const 1) (i32.const -4) (i32.const 1) (i32.const 16))))
