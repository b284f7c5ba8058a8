;; outcome: succeeded; tries: a path with a NUL, behind which something else stands
(data (i32.const 1024) "a.txt\00/../../outside/secret")
(data (i32.const 1100) "../outside/secret\00a.txt")
(func (export "_start")
  (call $must_fail (call $path_open (global.get $in) (i32.const 1) (i32.const 1024) (i32.const 28) (i32.const 0)
    (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 24)))
  (call $must_fail (call $path_open (global.get $in) (i32.const 1) (i32.const 1100) (i32.const 23) (i32.const 0)
    (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 24)))
  (call $must_fail (call $path_create_directory (global.get $out) (i32.const 1024) (i32.const 6))))
