;; outcome: refused; tries: to switch between stacks of its own
(module
  (type $f (func))
  (type $k (cont $f))
  (func $g)
  (elem declare func $g)
  (memory (export "memory") 1)
  (func (export "_start") (resume $k (cont.new $k (ref.func $g)))))
