;; outcome: bad_output; tries: a metadiff that is an array
(data (i32.const 1024) "[{\"a\": 1}]\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
