;; outcome: trapped; tries: to call the host again and again in an endless recursion, with less and less stack
(data (i32.const 1024) "a.txt\00")
(func $deeper (param $n i64) (result i64)
  (if (i64.eqz (i64.and (local.get $n) (i64.const 255))) (then
    (drop (call $open_to_read (global.get $in) (i32.const 1024)))
    (drop (call $fd_close (global.get $fd)))
    (drop (call $random_get (i32.const 131072) (i32.const 8)))))
  (i64.add (call $deeper (i64.add (local.get $n) (i64.const 1))) (i64.const 1)))
(func (export "_start") (drop (call $deeper (i64.const 0))))
