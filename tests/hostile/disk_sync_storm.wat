;; outcome: timed_out|succeeded; tries: to write 64 MiB and wait for the disk, again and again
(data (i32.const 1024) "x\00")
(func (export "_start")
  (local $n i32)
  (call $must_work (call $open_to_write (global.get $scratch) (i32.const 1024)))
  (drop (memory.grow (i32.const 260)))
  (loop $again
    (drop (call $write (global.get $fd) (i32.const 131072) (i32.const 16777216)))
    (drop (call $fd_sync (global.get $fd)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 4)))))
