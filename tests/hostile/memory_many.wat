;; outcome: refused; tries: more than one memory
(module (memory (export "memory") 1) (memory 1) (memory 1000) (func (export "_start")))
