-- A device may read alerts. It may not silence any: its key lies on a disk that others can reach.
-- Tables that were adopted may have no such constraint, or another of their own.
do $$ begin
    if exists (select from pg_constraint
               where conrelid = 'device_key'::regclass and conname = 'device_key_scopes_check') then
        alter table device_key drop constraint device_key_scopes_check;
        alter table device_key add constraint device_key_scopes_check
            check (cardinality(scopes) > 0
                   and scopes <@ array['metrics:read', 'metrics:write', 'rules:read', 'alerts:read']);
    end if;
end $$;
