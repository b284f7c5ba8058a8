;; outcome: bad_output; tries: a link in the place of the metadiff that stays inside
(func (export "_start")
  (call $must_work (call $symlink (call $args_name) (global.get $scratch) (call $metadiff_name))))
