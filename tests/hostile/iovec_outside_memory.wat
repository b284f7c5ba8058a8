;; outcome: trapped; tries: to write a buffer that lies outside its memory
(func (export "_start")
  (call $must_fail (call $write (i32.const 1) (i32.const 262140) (i32.const 100))))
