;; outcome: bad_output; tries: a folder in the place of the metadiff
(func (export "_start")
  (call $must_work (call $mkdir (global.get $scratch) (call $metadiff_name))))
