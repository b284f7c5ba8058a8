;; outcome: refused; tries: the entry of ITK modules with an _initialize that takes parameters
(module (memory (export "memory") 1) (func (export "_initialize") (param i32)) (func (export "")))
