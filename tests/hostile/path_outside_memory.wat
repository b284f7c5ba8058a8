;; outcome: trapped; tries: a path that lies outside its memory
(func (export "_start")
  (call $must_fail (call $path_open (global.get $in) (i32.const 1) (i32.const 262140) (i32.const 100) (i32.const 0)
    (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 24))))
