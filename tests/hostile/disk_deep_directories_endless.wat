;; outcome: timed_out; tries: to make folders in folders without end
(data (i32.const 1024) "d\00")
(func (export "_start")
  (local $folder i32) (local $n i32)
  (local.set $folder (global.get $scratch))
  (loop $deeper
    (call $must_work (call $mkdir (local.get $folder) (i32.const 1024)))
    (call $must_work (call $open (local.get $folder) (i32.const 1024) (i32.const 2) (i64.const 0x4002)))
    (if (i32.ne (local.get $folder) (global.get $scratch)) (then (drop (call $fd_close (local.get $folder)))))
    (local.set $folder (global.get $fd))
    (br_if $deeper (i32.const 1))))
