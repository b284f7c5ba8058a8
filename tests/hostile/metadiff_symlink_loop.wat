;; outcome: bad_output; tries: a link in the place of the metadiff that leads to itself
(func (export "_start")
  (call $must_work (call $symlink (call $metadiff_name) (global.get $scratch) (call $metadiff_name))))
