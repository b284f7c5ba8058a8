;; outcome: timed_out; tries: to throw and catch exceptions without end
(tag $e (param i64))
(func $f (throw $e (i64.const 1)))
(func (export "_start")
  (loop $again
    (block $caught (result i64) (try_table (catch $e $caught) (call $f)) (i64.const 0))
    (drop)
    (br $again)))
