;; outcome: bad_output; tries: a metadiff that ends too early
(data (i32.const 1024) "{\"a\": [1, 2\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
