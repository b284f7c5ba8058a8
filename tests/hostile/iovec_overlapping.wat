;; outcome: succeeded; tries: to write 100,000 buffers, each the same 64 KiB: 6 GiB in one call
(data (i32.const 1024) "x\00")
(func (export "_start")
  (local $at i32)
  (drop (memory.grow (i32.const 100)))
  (local.set $at (i32.const 262144))
  (loop $next
    (i32.store (local.get $at) (i32.const 131072))
    (i32.store offset=4 (local.get $at) (i32.const 65536))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 1062144))))
  (call $must_work (call $open_to_write (global.get $scratch) (i32.const 1024)))
  (loop $again
    (drop (call $fd_write (global.get $fd) (i32.const 262144) (i32.const 100000) (i32.const 16)))
    (drop (call $fd_write (i32.const 1) (i32.const 262144) (i32.const 100000) (i32.const 16)))
    (br_if $again (i32.const 0))))
