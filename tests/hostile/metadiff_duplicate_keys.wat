;; outcome: succeeded; tries: one key twice; the last one counts, as in Fractal
(data (i32.const 1024) "{\"a\": 1, \"a\": 2}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
