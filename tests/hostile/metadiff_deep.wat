;; outcome: bad_output; tries: a metadiff of 100,000 levels
(func (export "_start")
  (memory.fill (i32.const 131072) (i32.const 91) (i32.const 65536))
  (call $fill_metadiff (i32.const 50000) (i32.const 2)))
