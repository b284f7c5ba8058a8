;; outcome: trapped; tries: to call itself through a table without end
(type $plain (func))
(table 1 1 funcref)
(elem (i32.const 0) func $deeper)
(func $deeper (call_indirect (type $plain) (i32.const 0)) (call_indirect (type $plain) (i32.const 0)))
(func (export "_start") (call $deeper))
