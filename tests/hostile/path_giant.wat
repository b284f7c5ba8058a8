;; outcome: succeeded|timed_out; tries: a path that is all of its memory
(data (i32.const 1024) "x\00")
(func (export "_start")
  (drop (memory.grow (i32.const 900)))
  (memory.fill (i32.const 131072) (i32.const 97) (i32.const 58000000))
  (call $must_fail (call $path_open (global.get $in) (i32.const 1) (i32.const 131072) (i32.const 58000000) (i32.const 0)
    (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 24)))
  (call $must_fail (call $path_create_directory (global.get $out) (i32.const 131072) (i32.const 58000000)))
  (call $must_fail (call $path_symlink (i32.const 131072) (i32.const 58000000) (global.get $out) (i32.const 1024) (i32.const 1))))
