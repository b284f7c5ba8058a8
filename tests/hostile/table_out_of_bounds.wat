;; outcome: trapped; tries: to call an entry that its table does not have
(type $plain (func))
(table 1 1 funcref)
(func (export "_start") (call_indirect (type $plain) (i32.const 1000000000)))
