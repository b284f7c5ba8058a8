;; outcome: trapped; tries: to call a function through a table under another type
(type $other (func (param i64) (result f64)))
(table 1 1 funcref)
(elem (i32.const 0) func $f)
(func $f)
(func (export "_start") (drop (call_indirect (type $other) (i64.const 1) (i32.const 0))))
