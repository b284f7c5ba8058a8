;; outcome: bad_output; tries: a metadiff of a million nested objects
(func (export "_start")
  (local $n i32)
  (loop $next
    (i32.store (i32.add (i32.const 131072) (i32.mul (local.get $n) (i32.const 5))) (i32.const 0x2261227b))
    (i32.store8 (i32.add (i32.const 131076) (i32.mul (local.get $n) (i32.const 5))) (i32.const 0x3a))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))
  (call $fill_metadiff (i32.const 50000) (i32.const 100)))
