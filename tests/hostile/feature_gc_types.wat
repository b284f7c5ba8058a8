;; outcome: refused; tries: structures on a collected heap
(module
  (type $s (struct (field (mut i64))))
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (drop (struct.new $s (i64.const 1))) (br $again))))
