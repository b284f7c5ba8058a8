;; outcome: bad_output; tries: a metadiff of 17 MiB
(func (export "_start")
  (memory.fill (i32.const 131072) (i32.const 32) (i32.const 65536))
  (call $fill_metadiff (i32.const 65536) (i32.const 272)))
