;; outcome: trapped; tries: to call an empty entry of a table
(type $plain (func))
(table 1 1 funcref)
(func (export "_start") (call_indirect (type $plain) (i32.const 0)))
