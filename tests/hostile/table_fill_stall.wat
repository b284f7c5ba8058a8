;; outcome: timed_out|refused; tries: to fill and copy a large table, again and again
(table $t 7000000 funcref)
(elem declare func $f)
(func $f)
(func (export "_start")
  (loop $again
    (table.fill $t (i32.const 0) (ref.func $f) (i32.const 7000000))
    (table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 6999999))
    (br $again)))
