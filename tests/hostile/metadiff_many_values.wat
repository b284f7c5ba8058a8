;; outcome: bad_output; tries: a metadiff of 15 MB that holds eight million numbers, each far larger in memory than as text
(data (i32.const 1024) "{\"a\": [\00")
(data (i32.const 1056) "1]}\00")
(func (export "_start")
  (local $n i32)
  (call $must_work (call $open_to_write (global.get $scratch) (call $metadiff_name)))
  (call $must_work (call $write (global.get $fd) (i32.const 1024) (i32.const 7)))
  (loop $next
    (i32.store16 (i32.add (i32.const 131072) (local.get $n)) (i32.const 0x2c31))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 2))) (i32.const 131072))))
  (local.set $n (i32.const 0))
  (loop $next
    (call $must_work (call $write (global.get $fd) (i32.const 131072) (i32.const 131072)))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 120))))
  (call $must_work (call $write (global.get $fd) (i32.const 1056) (i32.const 3))))
