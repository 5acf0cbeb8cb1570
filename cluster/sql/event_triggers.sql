-- Only a superuser may create these; without them catalog_version compares the catalog itself.
DROP EVENT TRIGGER IF EXISTS snapring_ddl_start;
DROP EVENT TRIGGER IF EXISTS snapring_ddl_end;
DROP EVENT TRIGGER IF EXISTS snapring_ddl_drop;
CREATE EVENT TRIGGER snapring_ddl_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION snapring.on_ddl_start();
CREATE EVENT TRIGGER snapring_ddl_end ON ddl_command_end EXECUTE FUNCTION snapring.on_ddl_end();
CREATE EVENT TRIGGER snapring_ddl_drop ON sql_drop EXECUTE FUNCTION snapring.on_ddl_drop();
ALTER EVENT TRIGGER snapring_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER snapring_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER snapring_ddl_drop ENABLE ALWAYS;
