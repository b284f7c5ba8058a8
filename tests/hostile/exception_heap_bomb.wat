;; outcome: trapped|timed_out|refused; tries: to keep a million exceptions, each with eight values
(tag $e (param i64 i64 i64 i64 i64 i64 i64 i64))
(table $kept 4000000 exnref)
(func $throw
  (throw $e (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4) (i64.const 5) (i64.const 6) (i64.const 7) (i64.const 8)))
(func (export "_start") (local $n i32)
  (loop $again
    (table.set $kept (local.get $n)
      (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throw)) (unreachable)))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (br $again)))
