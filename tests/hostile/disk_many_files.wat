;; outcome: timed_out|succeeded; tries: to leave 20,000 files in its scratch folder
(data (i32.const 1024) "x\00")
(func (export "_start")
  (local $n i32)
  (loop $next
    (i32.store (i32.const 131072) (i32.add (i32.const 0x61616161) (i32.or
      (i32.and (local.get $n) (i32.const 15))
      (i32.or (i32.shl (i32.and (i32.shr_u (local.get $n) (i32.const 4)) (i32.const 15)) (i32.const 8))
      (i32.or (i32.shl (i32.and (i32.shr_u (local.get $n) (i32.const 8)) (i32.const 15)) (i32.const 16))
        (i32.shl (i32.and (i32.shr_u (local.get $n) (i32.const 12)) (i32.const 15)) (i32.const 24)))))))
    (i32.store (i32.const 131076) (i32.const 0))
    (call $must_work (call $put (global.get $scratch) (i32.const 131072) (i32.const 1024)))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000)))))
