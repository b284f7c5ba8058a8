;; outcome: refused; tries: to succeed by having nothing to run
(module (memory (export "memory") 1) (func (export "main")))
