;; outcome: succeeded; tries: integers of 60 digits, whose digits must stay
(data (i32.const 1024) "{\"a\": 123456789012345678901234567890123456789012345678901234567890}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
